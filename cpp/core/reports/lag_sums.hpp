// Sums over the contributions P_k^T Z_k of lags k, none of which is formed: P is (K, q, h), Z is (K, q, w).
#pragma once

#include "core/runtime/threads.hpp"
#include "core/runtime/workspace.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// C = A^T B, a sum over `rows` rows: A is (rows, m), B is (rows, n), C is (m, n). The same bits for any
// number of threads.
void outer_sum(Run& run, Workspace& workspace, Index rows, const double* A, Index m, const double* B, Index n,
               double* C);

// inner[k] = <P_k^T Z_k, G> = <P_k G, Z_k> with G (h, w).
void inner_products(Run& run, Workspace& workspace, Index K, Index q, Index h, Index w, const double* P,
                    const double* G, const double* Z, double* inner);

// With A_k = P_k P_k^T and B_k = Z_k Z_k^T, or the same (q, q) B for all k where Z is null:
//
//     inner[k] = <A_k, B_k> = ||P_k^T Z_k||_F^2,      largest[k] = ||A_k||_F ||B_k||_F.
void gram_products(Run& run, Workspace& workspace, Index K, Index q, Index h, Index w, const double* P,
                   const double* Z, const double* B, double* inner, double* largest);

}  // namespace rnnbptt
