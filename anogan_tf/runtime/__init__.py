"""What everything stands on: Keras on TensorFlow, files, model files, records of runs, progress."""
