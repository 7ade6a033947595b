"""Models that write a sequence of codes, one a beat: of noise, and of which beat comes next."""
