"""The gate: takes CSV files over SFTP and hands them to the spool. Knows no database, mail or provider."""
