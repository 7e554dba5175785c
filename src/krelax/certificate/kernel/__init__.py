"""The rules by which proofs are checked, and the arithmetic they are checked in: no files are read here."""
