"""What the user asked for and what the machine has, made definite. Knows no rows and no engine."""
