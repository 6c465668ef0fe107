"""What the simulator takes, by the settings."""

import pytest

from dispatch.simulator import NAME
from postern.cli import checks
from postern.model import Environment
from postern.settings import StoreSettings
from postern.sms.simulation import SIMULATOR, Simulation, is_simulated, simulation_of

PRODUCTION, TEST, LOADTEST = Environment.PRODUCTION, Environment.TEST, Environment.LOADTEST


@pytest.mark.parametrize(
    ("provider", "environment", "simulation"),
    [
        ("simulator", PRODUCTION, Simulation.ALL),
        ("simulator", TEST, Simulation.ALL),
        ("simulator", LOADTEST, Simulation.ALL),
        ("twilio", PRODUCTION, Simulation.NONE),
        ("twilio", TEST, Simulation.NUMBERS),
        ("twilio", LOADTEST, Simulation.ALL),
    ],
)
def test_what_the_simulator_takes(provider: str, environment: Environment, simulation: Simulation) -> None:
    """All where nothing else is set, and in a load test; its own numbers in the test environment."""
    assert simulation_of(provider, environment) is simulation


def test_an_attempt_is_simulated_by_its_mark() -> None:
    """The simulator's own; not one that nobody was handed."""
    assert NAME == SIMULATOR
    assert [is_simulated(name) for name in (NAME, "twilio", "")] == [True, False, False]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (PRODUCTION, "twilio"),
        (TEST, "twilio; messages to the simulator's numbers are simulated"),
        (LOADTEST, "the simulator: nothing is really sent"),
    ],
)
def test_the_doctor_says_who_really_takes_messages(environment: Environment, said: str) -> None:
    """Not what is set, where the simulator takes them all the same."""
    (line,) = checks.provider(StoreSettings(provider="twilio", environment=environment))
    assert line.detail == said
