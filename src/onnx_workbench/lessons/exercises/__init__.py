"""One exercise a room; each makes its facts afresh and knows the typical wrong answers."""
