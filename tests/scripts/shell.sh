#!/bin/bash
echo "RESULT $1 $((6 * 7)) $GIVEN"
