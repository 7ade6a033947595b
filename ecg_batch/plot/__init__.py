"""Plot: records on ECG paper, an hour at a glance."""
