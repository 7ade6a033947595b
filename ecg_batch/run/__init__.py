"""Run: who does what when, and what survives a kill."""
