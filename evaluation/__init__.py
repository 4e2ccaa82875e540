"""What eval.py runs, and train.py now and then."""
