"""Looking at a data set: what is wrong with it, what is in it, and what it looks like."""
