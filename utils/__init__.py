"""Command-line options, logging, devices and files: what every entry script needs."""
