"""A tensor is flat memory and a rule for finding elements in it.

    element [i, j] lives at      offset + i * strides[0] + j * strides[1]

A transpose, a slice and an expand change those few integers and move nothing. Each is done here by hand, then by the engine; the last
view is one that no strides can express. `tensor/layout.py` is this page for any number of axes.
"""

import tensor

x = tensor.arange(12).view(3, 4)
print(x)
print("\nIts memory, and which [i, j] lives in each cell:\n")
print(x.explain())

memory = x.storage.flat.tolist()


def read(shape, strides, offset):
    """Fetch every element of a two-dimensional layout by the formula above."""
    return [[memory[offset + i * strides[0] + j * strides[1]] for j in range(shape[1])] for i in range(shape[0])]


print("\n1. Transpose: swap the two sizes and the two strides.")
by_hand = read(shape=(4, 3), strides=(1, 4), offset=0)
print("by hand   ", by_hand)
print("x.T       ", x.T.tolist(), "  strides", x.T.strides, "offset", x.T.offset)
assert by_hand == x.T.tolist()

print("\n2. Slice x[1:, ::-2]: start at row 1, last column, cell 1*4 + 3*1 = 7; a row on is still +4, a column on is now -2.")
by_hand = read(shape=(2, 2), strides=(4, -2), offset=7)
part = x[1:, ::-2]
print("by hand   ", by_hand)
print("x[1:,::-2]", part.tolist(), "  strides", part.strides, "offset", part.offset)
assert by_hand == part.tolist()
print("\nIts view of the same cells, a dot where it sees nothing:\n")
print(part.explain())

print("\n3. Expand: row 1 three times over. A stride of 0 stays where it is, so twelve elements live in four cells.")
by_hand = read(shape=(3, 4), strides=(0, 1), offset=4)
row = x[1:2].expand(3, 4)
print("by hand   ", by_hand)
print("expanded  ", row.tolist(), "  strides", row.strides, "offset", row.offset)
assert by_hand == row.tolist()

print("\n4. One memory: a write through a view is seen by all of them. (In NumPy it is the same, with strides counted in bytes.)")
x.T[3, 0] = 300
print("x.T[3, 0] = 300   makes x[0] =", x[0].tolist(), "and x[:, ::-1][0] =", x[:, ::-1][0].tolist())
print("x.strides", x.strides, "elements of", x.dtype.itemsize, "bytes;   x.numpy().strides", x.numpy().strides)

print("\n5. view() regroups axes without a copy. Cutting an axis in two always works:")
cut = x.T.view(2, 2, 3)
print("x.T.view(2, 2, 3)   strides", x.T.strides, "->", cut.strides)
print("Joining axes 0 and 1 works if a step on axis 0 is as far as walking through axis 1:  strides[0] == shape[1] * strides[1].")
print(f"x      {x.strides[0]} == {x.shape[1]} * {x.strides[1]}, so x.view(12) has strides {x.view(12).strides}")
print(f"x.T    {x.T.strides[0]} != {x.T.shape[1]} * {x.T.strides[1]}: read in order, x.T walks cells 0 4 8 1 5 9 ..., by +4 +4 -7, and one stride cannot:")
try:
    x.T.view(12)
except tensor.errors.ViewError as error:
    print("ViewError:", error)

print("\nreshape takes a view where there is one, and copies only where it must:")
for name, made in (("x.reshape(12)  ", x.reshape(12)), ("x.T.reshape(12)", x.T.reshape(12))):
    print(name, made.tolist(), "  shares memory with x" if made.storage is x.storage else "  a copy")
