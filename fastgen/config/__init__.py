"""What the user asked for and what the machine has, with all defaults filled in. Does not know rows or engines."""
