"""Functions that run in processes of their own, at the same moment if there are several."""

import multiprocessing

# A forked process has imported everything already, of which torch alone takes seconds.
METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("fork" if "fork" in METHODS else "spawn")


def _at_once(start, function, arguments):
    start.wait(timeout=60)
    function(*arguments)


def forked(function, *arguments_of_each):
    """Call a function of a module with these arguments, a process for each; their exit codes.

    The code of a process that a signal ended is minus the number of the signal.
    """
    start = CONTEXT.Barrier(len(arguments_of_each))
    running = [
        CONTEXT.Process(target=_at_once, args=(start, function, arguments))
        for arguments in arguments_of_each
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=60)
    return [process.exitcode for process in running]
