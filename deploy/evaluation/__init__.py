"""`fovea evaluate`: questions about images with known answers, asked through a gateway, and how right the answers are.

dataset.py   the file of rows, each an image, a question and the truth
schemas.py   the JSON Schema that answers have to fit, from a file or from a class
asking.py    a row as a request, and the answer to it, with patience
answers.py   the file that every answer is added to as it comes, where the same command resumes
scores.py    how right one answer is, as the benchmarks define it
marking.py   a row and its answer -> its marks
intervals.py  how sure a mean is
report.py    marks -> scores, as a table and as JSON
plot.py      scores as a picture
run.py       all of that in its order
"""
