"""What a user of Flower and PEFT writes today, one user for each message; to be measured against."""
