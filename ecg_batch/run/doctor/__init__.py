"""Doctor: what a support thread would ask for, found out on the spot, with what is wrong and what to do about it."""
