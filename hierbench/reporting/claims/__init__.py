"""Published claims put to the test: a file says what would show each, the records say whether they do."""
