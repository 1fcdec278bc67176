// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// The kernel calls it as a C function, with the signal in R0. It may change
// any register but R30, where it returns to: those of the interrupted code are
// restored on the way back. The thread may be one that has no signal stack and
// no g yet.
TEXT handler<>(SB), NOSPLIT|NOFRAME, $0
	MOVD ·thread(SB), R1
	CBZ R1, collect
	MOVD R0, R2
	MOVD ·process(SB), R0
	MOVD $131, R8 // tgkill
	SVC
	RET
collect:
	SUB $16, RSP
	MOVB R0, 8(RSP)
	MOVD ·pipe(SB), R0
	ADD $8, RSP, R1
	MOVD $1, R2
	MOVD $64, R8 // write
	SVC
	ADD $16, RSP
	RET

TEXT restorer<>(SB), NOSPLIT|NOFRAME, $0
	MOVD $139, R8 // rt_sigreturn
	SVC
	BRK

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-16
	MOVD $handler<>(SB), R0
	MOVD R0, handler+0(FP)
	MOVD $restorer<>(SB), R0
	MOVD R0, restorer+8(FP)
	RET
