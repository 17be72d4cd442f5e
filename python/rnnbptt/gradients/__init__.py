"""A loss and its derivatives, first and second, by parameters, initial states and inputs."""
