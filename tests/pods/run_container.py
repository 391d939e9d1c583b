"""`python -m tests.pods.run_container FOLDER COMMAND ...`: becomes the command, in the folder, as a container's first process.

Below a guardian (`deploy.processes`), which runs modules only.
"""

import os
import sys

if __name__ == "__main__":
    folder, *command = sys.argv[1:]
    os.chdir(folder)
    os.execvp(command[0], command)
