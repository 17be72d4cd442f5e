// What the engine computes on: views of the caller's arrays, never owners. Constness is in the type.
//
// T is time; the scalar type is `Scalar` (float or double). Everything is row-major.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace rnnbptt {

using Index = std::ptrdiff_t;

// Element (t, b, i) lies at data[t * step + b * sequence + i].
template <typename Scalar>
struct SequenceView {
  Scalar* data = nullptr;
  Index step = 0;
  Index sequence = 0;

  Scalar* at(Index t, Index b) const { return data + t * step + b * sequence; }
  explicit operator bool() const { return data != nullptr; }
};

// Element (i, j) lies at data[i * row + j * column].
template <typename Scalar>
struct MatrixView {
  Scalar* data = nullptr;
  Index rows = 0, columns = 0;
  Index row = 0, column = 1;

  MatrixView transposed() const { return {data, columns, rows, column, row}; }
  MatrixView submatrix(Index i, Index j, Index height, Index width) const {
    return {data + i * row + j * column, height, width, row, column};
  }
};

struct Shape {
  Index T = 0, B = 0, d = 0, h = 0, q = 0;
};

// Weights of the model; absent optional ones are null. All contiguous.
template <typename Scalar>
struct Params {
  Scalar* W_hx = nullptr;  // (h, d)
  Scalar* W_hh = nullptr;  // (h, h)
  Scalar* W_qh = nullptr;  // (q, h)
  Scalar* b_h = nullptr;   // (h,)
  Scalar* b_q = nullptr;   // (q,)
  Scalar* W_qx = nullptr;  // (q, d)
};

template <typename Scalar>
class Loss;  // core/losses.hpp

// One data set and what is asked of it.
template <typename Scalar>
struct Problem {
  Shape shape;
  SequenceView<const Scalar> x;             // (T, B, d)
  const Scalar* h0 = nullptr;               // (B, h) or null for zero
  const Loss<Scalar>* loss = nullptr;       // null where dL/do itself is given
  double loss_parameter = 0;                // a number of the caller's, for the losses that take one
  SequenceView<const Scalar> y;             // (T, B, q): targets, or dL/do where that is given
  SequenceView<const std::int64_t> labels;  // (T, B) instead, for losses of class labels
  SequenceView<const double> weights;       // (T, B) or null for ones; a step of weight 0 is left out exactly
  bool weights_of_outputs = false;          // they are (T, B, q), one for each target: of a separable loss
  const std::int64_t* lengths = nullptr;  // (B,) steps of each sequence that matter, or null for T; may be 0
  double weight_sum = 0;                  // what the weighted sum of losses is divided by
  const Scalar* d_hT = nullptr;  // (B, h): what follows asks of each sequence's last state, or null for zero

  // Where gradients are truncated: nothing flows from a step that is cut to the state before it.
  Index block = 0;                     // cut at steps block, 2 block, ... (zero-based), or 0 for never
  const std::uint8_t* cuts = nullptr;  // (T, B): 1 where cut, or null
  double flow = 1;                     // what does flow is multiplied by this; not 1 where there are cuts
  Index tau = 0;                       // or each loss looks back at so many states, 0 for all

  bool cut(Index t, Index b) const {
    return (block > 0 && t > 0 && t % block == 0) || (cuts != nullptr && cuts[t * shape.B + b] != 0);
  }

  // Outputs are o and a tangent o' of it side by side, shape.q both together, y is that of o alone; what is
  // differentiated is the tangent of the loss, sum dL/do . o'. Its gradients are never truncated.
  bool tangent = false;

  // A power of two that x and d_o are multiplied by as they are read, and outputs divided by: where h0, d_hT
  // and biases of the model are scaled alike, sums of numbers near the end of the range do not leave it.
  Scalar down = 1;

  Index length(Index b) const { return lengths != nullptr ? static_cast<Index>(lengths[b]) : shape.T; }

  // The length of the longest sequence.
  Index longest() const {
    return lengths != nullptr ? static_cast<Index>(*std::max_element(lengths, lengths + shape.B)) : shape.T;
  }
};

// Where gradients go. Parameters that are absent or not asked for are null.
template <typename Scalar>
struct Gradients {
  Params<Scalar> params;
  Scalar* h0 = nullptr;    // (B, h)
  SequenceView<Scalar> x;  // (T, B, d)
};

}  // namespace rnnbptt
