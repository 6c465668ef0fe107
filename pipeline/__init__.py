"""From the spool to a verdict: intake, validation, the report, and the batch of a valid file."""
