"""What is simulated: the one place that says whether a message leaves, or whether the simulator takes it.

The simulator delivers nothing, so whatever it took is marked in every mail, page and listing, and costs 0.
"""

from enum import StrEnum

from postern.model import Environment

SIMULATOR = "simulator"  # its name as a provider, in the settings and on the attempts that it took
MARK = "SIMULATED"


class Simulation(StrEnum):
    """What the simulator takes of an installation's messages."""

    ALL = "all"  # no SMS leaves
    NUMBERS = "numbers"  # those to its own numbers; the others leave
    NONE = "none"  # its numbers are numbers like any other


def simulation_of(provider: str, environment: Environment) -> Simulation:
    """What the simulator takes, by the provider that the settings name. In a load test it takes everything."""
    if provider == SIMULATOR or environment is Environment.LOADTEST:
        return Simulation.ALL
    return Simulation.NUMBERS if environment is Environment.TEST else Simulation.NONE


def is_simulated(provider: str) -> bool:
    """Whether an attempt that is marked with this provider was the simulator's."""
    return provider == SIMULATOR
