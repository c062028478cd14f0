"""Generated data sets of any size, in the shape of a real one."""
