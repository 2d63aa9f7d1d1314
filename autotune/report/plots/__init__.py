"""The plots of a study, each a function from its history to a `Plot`."""
