"""The versions of chat_choice; a module of its own because hashes of tasks need nothing else."""

#: Raise when other prompts are built from the same docs: all its tasks are asked anew.
PROMPTS_VERSION = "1"
#: Raise when another letter is found in the same answer: stored answers are scored anew.
EXTRACTION_VERSION = "2"
#: What stands for both.
CHAT_CHOICE_VERSION = f"{PROMPTS_VERSION}.{EXTRACTION_VERSION}"
