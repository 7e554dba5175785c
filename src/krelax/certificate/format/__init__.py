"""The file of a certificate: its schema, reading and writing it, and what it says."""
