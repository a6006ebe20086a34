"""What `alignment preview` shows of the stages that reward models and judges take part in."""
