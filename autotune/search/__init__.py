"""Search: which candidate next, what is hopeless, and whether the winner wins again."""
