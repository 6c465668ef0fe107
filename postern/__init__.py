"""The shared words of Postern: values, rules and settings that several programs need, and the command line."""

__version__ = "0.1.0"
