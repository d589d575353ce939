"""Which head attends to what: tables, calibration."""
