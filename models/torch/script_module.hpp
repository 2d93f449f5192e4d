#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/module.h>

#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "script_file.hpp"

namespace covey::torch {

/// A TorchScript module whose weights are views of one flat tensor, in the order of `layout`, and
/// whose gradients are views of another: what acts on the flat tensors acts on the module, and
/// nothing is copied per tensor. One thread at a time. Members that run libtorch may throw its
/// exceptions.
class ScriptModule {
 public:
  /// Error: no module, nothing to train, tensors of another type than float32 to train.
  static Result<ScriptModule> load(const ScriptFile& file);

  const ModelLayout& layout() const { return layout_; }
  std::size_t trainable() const { return trainable_; }

  at::Tensor& state() { return state_; }  ///< R^d: everything of the layout
  const at::Tensor& state() const { return state_; }
  at::Tensor& weights() { return weights_; }    ///< R^p: what training changes, a view of state()
  at::Tensor& gradient() { return gradient_; }  ///< R^p
  at::Device device() const { return state_.device(); }

  /// Batch-norm's running statistics are taken in training mode, dropout acts in it.
  void set_training(bool on);
  at::Tensor forward(const at::Tensor& inputs);
  /// Back to what the file holds: integer buffers, which are not part of the model.
  void reset_local_buffers();
  /// Whether a forward pass can draw from libtorch's generator.
  bool may_draw_random() const { return may_draw_random_; }
  void note_random_draws() { may_draw_random_ = true; }
  /// The name of a tensor that is no view of state() any more, because the module put another one
  /// in its place; empty when there is none.
  std::string displaced_tensor() const;

 private:
  struct Bound {
    std::string name;
    at::Tensor tensor;
    std::size_t offset = 0;
  };
  struct LocalBuffer {
    std::string name;
    at::Tensor tensor;
    at::Tensor original;
  };

  ScriptModule() = default;
  Result<void> collect(const ScriptFile& file);
  void bind(const at::Device& device);
  std::size_t place(const Bound& bound);

  ::torch::jit::Module module_;
  bool training_ = false;
  bool knows_mode_ = false;
  bool may_draw_random_ = false;
  ModelLayout layout_;
  std::size_t trainable_ = 0;
  std::vector<Bound> bound_;
  std::vector<LocalBuffer> local_buffers_;
  at::Tensor state_, weights_, gradient_;
};

/// Runs a module as it is written, on one thread of libtorch's: its optimising executor rewrites a
/// module after the first calls, so that results would depend on how often an engine was used
/// before. Lives around every call into a module.
class PlainExecution {
 public:
  PlainExecution();
  ~PlainExecution();
  PlainExecution(const PlainExecution&) = delete;
  PlainExecution& operator=(const PlainExecution&) = delete;

 private:
  bool optimised_before_;
};

}  // namespace covey::torch
