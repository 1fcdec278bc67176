// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// The kernel calls it as a C function, with the signal in DI. It may change
// any register: those of the interrupted code are restored on the way back. The
// thread may be one that has no signal stack and no g yet.
TEXT handler<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ ·thread(SB), SI
	TESTQ SI, SI
	JZ collect
	MOVQ DI, DX
	MOVQ ·process(SB), DI
	MOVQ $234, AX // tgkill
	SYSCALL
	RET
collect:
	SUBQ $24, SP
	MOVQ DI, 8(SP)
	MOVQ ·pipe(SB), DI
	LEAQ 8(SP), SI
	MOVQ $1, DX
	MOVQ $1, AX // write
	SYSCALL
	ADDQ $24, SP
	RET

TEXT restorer<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ $15, AX // rt_sigreturn
	SYSCALL
	INT $3

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-16
	MOVQ $handler<>(SB), AX
	MOVQ AX, handler+0(FP)
	MOVQ $restorer<>(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
