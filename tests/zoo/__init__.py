"""Small models with known answers, for tests of any method."""
