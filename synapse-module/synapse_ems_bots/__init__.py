"""A Synapse module: the bots of ems-bots are in new rooms from the first moment on."""

__version__ = "0.1.0"
