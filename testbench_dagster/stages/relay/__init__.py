"""Asking (Requester): what is due is relayed, and every attempt stored."""
