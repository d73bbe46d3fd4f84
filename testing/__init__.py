"""What test.py does with a trained run, by kind of method (`BaseModel.flow`)."""
