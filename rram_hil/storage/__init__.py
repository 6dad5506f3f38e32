"""What is kept: journal, ledger, run file, exports, and files that are whole or not there."""
