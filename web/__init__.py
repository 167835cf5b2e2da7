"""The endpoint's HTTP: routes and their types over `studiolo.service`. Any number of processes may run it at once."""
