"""Run folders of pretraining and fine-tuning: claim, lock and provenance."""
