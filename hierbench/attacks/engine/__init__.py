"""One search for all attacks: slots, passes, verdicts and their verification."""
