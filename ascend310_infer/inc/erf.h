// SPDX-License-Identifier: Apache-2.0
// The error function, many numbers at a time.
#ifndef ASCEND310_INFER_INC_ERF_H_
#define ASCEND310_INFER_INC_ERF_H_

// erf(inputs[i]) to outputs[i], off by 4e-7 at most. Returns 0.
//
// MindSpore Lite 2.0.0 has a function of this name and signature that calls the C library for every number: a sixth of
// the time of a question. A program's own definition goes before those of its libraries, so MindSpore Lite calls this
// one; a release without such a function does not notice it.
extern "C" int ElementErf(const float* inputs, float* outputs, int count);

#endif  // ASCEND310_INFER_INC_ERF_H_
