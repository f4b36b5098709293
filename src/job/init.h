/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* PID 1 of a job's namespace: starts the command or restores the image, reaps what is orphaned, answers at the control socket,
 * saves from time to time, and ends when the root has ended, which ends all that is left of the job.
 *
 * The first message on the channel is the spec:
 *	template         it is no init: it loads what clones of `restore` have in common, and makes their inits (template.c)
 *	clone            number of this clone: it says {"event": "ready"} when it could run, and does when it is told {"op": "go"}
 *	restore          path of an image; without it the words after the channel are a command to start
 *	name             of the job; a number is put behind one that is taken, unless `exact`
 *	exact            the user chose the name
 *	detached         the job lives on when the Cairn that started it ends
 *	user             it has a user namespace: the command gets none of its capabilities
 *	network          it has a network namespace of its own
 *	monotonic_ns, boottime_ns   it has a time namespace, with these offsets
 *	mask             blocked signals that the command starts with
 *	image            absolute path where checkpoints go, when a request names none
 *	every, keep      seconds between periodic checkpoints (0: none); generations to keep (image, image.1 ...)
 *	outside, tcp, save_files, lose_in_flight   for its own checkpoints, as cairn_checkpoint_options has them
 *	(a descriptor "key")   of the image and of all its checkpoints, which are encrypted then
 *	exit_after       a periodic checkpoint ends the job
 *	terminal, ours   the caller's controlling terminal, and whether he is in its foreground
 *	threads, timeout, leave_stopped, ignore_changed_files, roll_back_files, force_cpu, trust_image,
 *	path_maps [[old, new] ...], redirects [[fd, path] ...], once, lazy, mapped   as cairn_restore_options has them
 * The answer has "status", and then "root" (PID inside), "name", "processes", "threads", "pages". After it the init says
 *	{"event": "stopped"}                        the root stopped (job control); {"op": "continue"} lets it go on
 *	{"event": "message", "line": TEXT}          something for the user
 *	{"event": "saved", "image": PATH}
 *	{"event": "ended", "wait": STATUS, "saved": BOOL}   the root ended; `saved`: by a checkpoint that ends the job
 * and takes the requests of the control socket (control.h). */

/* Does not return until the job has ended; the exit status of this process. @command: NULL without one. */
int init_run(int channel, char *const command[]);
