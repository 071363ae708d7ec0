"""Every schema that a released Prunella has ever written, as steps from one to the next."""
