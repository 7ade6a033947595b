"""Signal: what can be measured on any ECG, and the filters and transforms that everybody shares."""
