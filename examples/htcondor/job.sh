#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What HTCondor starts (job.sub). Every 30 minutes, and when it is told to leave, the job is saved and ends with 85; HTCondor takes the files away
# and starts it again, here or elsewhere. Each start has a directory of its own: the image is told where the last one was, and that its files,
# which came with it, have other times.
was=$(cat job.directory 2>/dev/null || pwd)
pwd >job.directory
exec "${CAIRN:-cairn}" run --image job.cairn --resume --map-path "$was=$(pwd)" --file-changed ignore --every "${EVERY:-30m}" --on-signal TERM \
	--exit-after-checkpoint=any -- "$@" >>out.txt 2>>err.txt
