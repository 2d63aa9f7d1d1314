"""Simulator: a discrete-event model of SGLang's scheduler, in virtual time or behind HTTP."""
