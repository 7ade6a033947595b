"""Events of long records: which beat comes next and when, beats of others, and what comes over them. Begin with write_order.py."""
