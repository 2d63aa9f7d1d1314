"""Engines in containers: one rank per node, on Docker engines near and far. The only user of docker-py."""
