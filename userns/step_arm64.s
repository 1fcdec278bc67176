// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// The same program as in step_amd64.s.

// func step()
TEXT ·step(SB), NOSPLIT|NOFRAME, $0-0
	MOVD RSP, R20
	MOVD 0(R20), R19         // argc
	ADD  $8, R20, R21        // argv
	ADD  $16, R20, R22
	ADD  R19<<3, R22, R22    // envp: behind argv and its NULL
	MOVD $0x400800, R23      // stepData

	MOVD 0(R23), R0          // setns(fd, CLONE_NEWUSER)
	MOVD $0x10000000, R1
	MOVD $268, R8
	SVC
	CBNZ R0, failed

	MOVD 0(R23), R0          // close(fd)
	MOVD $57, R8
	SVC

	MOVD $0, R0              // setgroups(0, NULL): denied where only one id is mapped
	MOVD $0, R1
	MOVD $159, R8
	SVC

	MOVD $0, R0              // setresgid(0, 0, 0)
	MOVD $0, R1
	MOVD $0, R2
	MOVD $149, R8
	SVC
	CBNZ R0, failed

	MOVD $0, R0              // setresuid(0, 0, 0)
	MOVD $0, R1
	MOVD $0, R2
	MOVD $147, R8
	SVC
	CBNZ R0, failed

	MOVD $0x20000, R0        // unshare(CLONE_NEWNS)
	MOVD $97, R8
	SVC
	CBNZ R0, failed

	ADD  $24, R23, R0        // execve(path, argv, envp)
	MOVD R21, R1
	MOVD R22, R2
	MOVD $221, R8
	SVC

failed:
	MOVD $2, R0              // write(2, message, length)
	MOVD 8(R23), R1
	MOVD 16(R23), R2
	MOVD $64, R8
	SVC
	MOVD $125, R0            // exit_group(125)
	MOVD $94, R8
	SVC
	BRK

// func stepAddress() uintptr
TEXT ·stepAddress(SB), NOSPLIT, $0-8
	MOVD $·step(SB), R0
	MOVD R0, ret+0(FP)
	RET
