"""How long a program takes on a device that is not here, from the device's figures and what the program does."""
